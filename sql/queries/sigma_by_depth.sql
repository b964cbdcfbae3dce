-- How does sigma change with depth, role by role (Fig. 6)?
-- param subject = NULL: only this subject; all when NULL
-- param role = NULL: only this role; all when NULL
SELECT subject, part, role, layer, avg(std) AS std, min(std) AS std_min, max(std) AS std_max, count(*) AS matrices
FROM tensor_stats
WHERE is_matrix AND layer IS NOT NULL
    AND ($subject IS NULL OR subject = $subject)
    AND ($role IS NULL OR role = $role)
GROUP BY subject_id, subject, part, role, layer
ORDER BY subject_id, part, role, layer;
