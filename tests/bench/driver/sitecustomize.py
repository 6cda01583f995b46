"""Loads the simulated `pynvml` before the agent looks for NVIDIA's library, which there need not be."""

import importlib

importlib.import_module("pynvml")
