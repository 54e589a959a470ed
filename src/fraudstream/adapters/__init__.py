"""The only modules that import a client library: Kafka, Redis."""
