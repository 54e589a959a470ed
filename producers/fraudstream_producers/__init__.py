"""Upstream systems to try fraudstream with: a simulator of card traffic and a replayer of files.

They stand for somebody else's payment system: what they know of fraudstream is the topics and their JSON, nothing of
its code.
"""
