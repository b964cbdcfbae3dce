-- What shape has each level of noise of one simulation?
-- param subject_id = 1: the subject
SELECT
    subject, name AS tensor,
    regexp_extract(name, '[0-9][0-9.e+-]*$')::DOUBLE AS noise,
    iqr_ratio, kurtosis_3s, shape_class
FROM tensor_stats
WHERE subject_id = $subject_id
ORDER BY ordinal;
