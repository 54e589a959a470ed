"""The data plane behind every door (Kafka, command line, tests): what ties the core to its stores and outputs."""
