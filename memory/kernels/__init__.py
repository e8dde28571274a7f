"""The costly inner parts of memories, in plain PyTorch; what is faster on some device stands beside it under the same signature."""
