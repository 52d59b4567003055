"""What MNN gets wrong at precision ``low`` alone, on CPUs with half-precision arithmetic."""
