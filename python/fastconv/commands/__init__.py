# SPDX-License-Identifier: Apache-2.0
"""Commands of `fastconv` that are more than a few lines, and what their arguments share."""
