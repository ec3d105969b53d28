"""What a model shows: the signals of one forward pass, and how they are captured."""

from hf_distill.signals.signals import Demand, Signals, Unit

__all__ = ["Demand", "Signals", "Unit"]
