//! Metrics: dcgm-exporter's main families and our own.
