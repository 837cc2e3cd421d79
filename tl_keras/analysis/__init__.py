"""Does transfer help, which backbone suits, and did the data drift?"""
