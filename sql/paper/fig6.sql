-- How does the sigma of transformation weights change with depth, module by module (Fig. 6)?
-- param subject = NULL: only this subject; all when NULL
-- The paper: it grows with depth. relative_std is that over the sigma of the base's tensor.
SELECT
    subject, method, r, part, module, role, layer,
    avg(std) AS std,
    avg(relative_std) AS relative_std,
    avg(changed_ratio) AS changed_ratio,
    count(*) AS matrices
FROM delta_stats
WHERE is_matrix AND layer IS NOT NULL AND ($subject IS NULL OR subject_id = $subject::INTEGER)
GROUP BY subject_id, subject, method, r, part, module, role, layer
ORDER BY subject_id, part, module, role, layer;
