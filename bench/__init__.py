# SPDX-License-Identifier: Apache-2.0
"""How fast, against whom, and how exactly: the method is in README.md."""
