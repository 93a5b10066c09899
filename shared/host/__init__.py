"""The machine under a process: files, locks, logs, certificates, signals."""
