"""The prompts that fine-tuning is compared with, and what they are made of. A new arm goes into `arms.ARMS`.

arms                      item → messages, by the recipe's word
demonstrations            which training rows stand before a question; `demonstration_selection` finds the best set on dev
instruction               the form of the answers in words; `optimization` searches for a better instruction
passages, retrieval       the user's documents in pieces, and BM25 over them
"""
