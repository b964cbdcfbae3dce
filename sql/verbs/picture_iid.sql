-- How much do the sigmas of rows and of columns vary beyond chance, layer by layer and role by role?
-- param subject_id = 1: the subject
SELECT
    subject, part, role, layer, avg(row_sigma_cv) AS rows, avg(column_sigma_cv) AS columns
FROM iid_stats
WHERE subject_id = $subject_id AND layer IS NOT NULL
GROUP BY subject, part, role, layer
ORDER BY part, role, layer;
