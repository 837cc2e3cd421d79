"""Runs exported files: LiteRT, ONNX Runtime, benchmarks, inspection."""
