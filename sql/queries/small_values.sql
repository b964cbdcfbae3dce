-- What share of each matrix is smaller in magnitude than 1e-3 (App. A.1)?
-- param subject = NULL: only this subject; all when NULL
-- param limit = 20: how many rows; all when NULL
SELECT
    t.subject, t.name, t.small_ratio,
    t.zeros / t.finite AS zero_ratio,
    t.kurtosis_3s,
    f.kurtosis AS kurtosis_3s_floor,
    t.std, t.n
FROM tensor_stats t
LEFT JOIN filtered f ON f.tensor_id = t.tensor_id AND f.sigmas = 3 AND f.floor = 1e-3
WHERE t.is_matrix AND ($subject IS NULL OR t.subject = $subject)
ORDER BY t.small_ratio DESC, t.subject_id, t.ordinal
LIMIT $limit;
