-- Which layers hold matrices of another shape than a Gaussian's, and of which roles (App. A.1)?
-- param subject = NULL: only this subject; all when NULL
SELECT
    subject, part, layer,
    count(*) AS matrices,
    count(*) FILTER (shape_class = 'sharp') AS sharp,
    count(*) FILTER (shape_class = 'inverted_t') AS inverted_t,
    count(*) FILTER (shape_class = 'line') AS line,
    min(iqr_ratio) AS iqr_ratio_min,
    string_agg(DISTINCT role, ', ' ORDER BY role) FILTER (shape_class <> 'gaussian') AS roles
FROM tensor_stats
WHERE is_matrix AND ($subject IS NULL OR subject = $subject)
GROUP BY subject_id, subject, part, layer
HAVING sharp + inverted_t + line > 0
ORDER BY subject_id, layer IS NULL, part, layer;
