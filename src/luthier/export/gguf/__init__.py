"""A model as one file for llama.cpp (github.com/ggml-org/llama.cpp), written with gguf-py. File by file:

model       a run → a file
adapter     a LoRA adapter → a file that stands beside one of its base
families    settings and layout of each family of models: add a family there
weights     a folder's weights in that layout, one at a time
types       number formats, and which tensor gets which
vocabulary  the tokenizer, and the name of how it cuts text, proven in llama.cpp
file        files written whole; files read with bounds
"""
