-- How do two subjects differ as a whole?
-- Over the temporary table `compared`, the answer of compare_tensor.
SELECT * EXCLUDE (part, layer, role, depth_correlation)
FROM compared_by('compared', false, false)
ORDER BY ALL;
