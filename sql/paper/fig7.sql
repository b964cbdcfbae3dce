-- What becomes of sparse weights as noise grows on them (Fig. 7)?
-- param subject = NULL: only this subject; all when NULL
-- Of subjects that gaussmeter simulate has made; paper_shape is what the paper sees at this level.
WITH paper(noise, shape) AS (VALUES
    (0.001e0, 'line'), (0.005, 'line'), (0.01, 'inverted_t'), (0.03, 'sharp'), (0.05, 'sharp'),
    (0.1, 'gaussian'), (0.2, 'gaussian'), (0.3, 'gaussian')
),
levels AS (
    SELECT t.*, try_cast(regexp_extract(t.name, '[0-9][0-9.e+-]*$') AS DOUBLE) AS noise
    FROM tensor_stats t
    JOIN subjects s USING (subject_id)
    WHERE s.kind = 'simulation' AND ($subject IS NULL OR t.subject_id = $subject::INTEGER)
)
SELECT
    l.subject, l.noise, l.n, l.std, l.iqr_ratio, l.ratio_3s, l.kurtosis_3s, l.kurtosis, l.shape_class,
    p.shape AS paper_shape
FROM levels l
LEFT JOIN paper p ON p.noise = l.noise
ORDER BY l.subject_id, l.ordinal;
