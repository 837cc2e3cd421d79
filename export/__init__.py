"""The way out: a trained run becomes files for phones, boards and servers, each one proven.

`export` may import `tl_keras`, never the reverse.
"""
