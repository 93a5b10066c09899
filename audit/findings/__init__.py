"""From run folder and evidence to sections of the report; pure."""
