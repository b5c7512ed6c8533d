"""Why a gradient is wrong, absent or not finite."""
