"""The whole path measured: records in Kafka to acknowledged decisions and alerts, with real servers and a real worker.

Everything a figure needs is in one run, so that figures of one report come from the same minutes of the same machine.
"""
