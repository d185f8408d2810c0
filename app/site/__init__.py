"""The pages for people: what docs/ has in Markdown, and what can be said from the contract and the refusals.

A page is made when it is first asked for, and kept; nothing here is imported or read at the start of the service.
"""
