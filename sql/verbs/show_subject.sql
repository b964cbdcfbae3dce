-- What is there to know of one subject as a whole?
-- param subject_id = 1: the subject
SELECT
    subject, tensors, matrices, not_counted, n AS parameters, zeros, nan, inf, std, skewness, kurtosis,
    ratio_3s, skewness_3s, skewness_3s_std, kurtosis_3s, kurtosis_3s_std, small_ratio
FROM subject_stats
WHERE subject_id = $subject_id;
