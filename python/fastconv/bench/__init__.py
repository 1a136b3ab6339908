# SPDX-License-Identifier: Apache-2.0
"""How fast, against whom, and how exactly: what `fastconv bench` runs. The method is in bench/README.md.

Only NumPy is loaded here: every rival computes in a process of its own (worker.py), tables and figures load rich and
matplotlib when they are made.
"""
