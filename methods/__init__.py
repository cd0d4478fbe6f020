"""The methods: one file, one class, one slug each. A new file here is listed, runnable and tested; nothing else is edited."""
