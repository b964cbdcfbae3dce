-- How do two subjects differ, role by role, and do their sigmas go the same way with depth?
-- Over the temporary table `compared`, the answer of compare_tensor.
SELECT * EXCLUDE (part, layer, distance, correlation, depth_correlation), depth_correlation AS correlation
FROM compared_by('compared', false, true)
ORDER BY matrices DESC, tensors DESC, role;
