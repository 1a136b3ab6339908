# SPDX-License-Identifier: Apache-2.0
"""What `fc.explain` is made of: facts of an algorithm, its measurement, the table, the page."""
