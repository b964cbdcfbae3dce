-- How do two subjects differ, layer by layer?
-- Over the temporary table `compared`, the answer of compare_tensor.
SELECT * EXCLUDE (role, distance, correlation, depth_correlation)
FROM compared_by('compared', true, false)
ORDER BY part, layer NULLS LAST;
