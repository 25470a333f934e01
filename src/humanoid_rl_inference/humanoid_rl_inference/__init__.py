"""The policy node: ONNX inference at control frequency behind a safety guard."""
