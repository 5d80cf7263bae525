"""This tree beside another one."""
