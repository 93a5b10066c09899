"""Is the auditor itself right?"""
