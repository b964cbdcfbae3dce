-- Do transformation weights whose sigmas are closer to a baseline's score closer to it (Fig. 5)?
-- param baseline = NULL: the subject to measure from; each in turn when NULL
-- param subject = NULL: only this subject; all when NULL
-- param metric = score: the metric of the runs that is the score; its last value counts
-- param scores = NULL: scores instead of those of runs, as JSON [{"subject_id": 3, "score": 78.4}, ...]
-- The paper takes the adapters of rank 32 as baselines. `correlation` is that of the two gaps over all of a
-- baseline's subjects, from three on: 1 if the hypothesis held to the letter. Matrices are matched by their place,
-- because a wrapper may have lengthened the names of one of two. Differences are those of one base, learnt in runs of one
-- task, as far as that is known.
WITH chosen AS (
    SELECT
        s.subject_id, s.name, s.kind IN ('delta', 'adapter') AS is_derived, s.spec ->> 'method' AS method,
        try_cast(s.spec ->> 'r' AS INTEGER) AS r, CASE WHEN is_derived THEN s.spec ->> 'base' END AS base,
        x.task, x.score
    FROM subjects s
    LEFT JOIN subject_scores($metric, $scores) x USING (subject_id)
    WHERE s.status = 'complete'
),
gaps AS (
    SELECT
        f.subject_id AS baseline_id, f.name AS baseline, s.subject_id, s.name AS subject, s.method, s.r,
        count(*) AS matrices,
        std_gap(a.std, b.std) AS std_gap,
        any_value(s.score) AS score,
        any_value(abs(s.score - f.score)) AS score_gap
    FROM chosen f
    JOIN chosen s ON s.subject_id <> f.subject_id AND s.is_derived = f.is_derived
        AND coalesce(s.base = f.base, true) AND coalesce(s.task = f.task, true)
    JOIN tensor_stats a ON a.subject_id = f.subject_id AND a.is_matrix
    JOIN tensor_stats b ON b.subject_id = s.subject_id AND b.is_matrix AND b.module = a.module
        AND b.part = a.part AND b.layer IS NOT DISTINCT FROM a.layer
    WHERE f.subject_id = $baseline::INTEGER OR $baseline IS NULL AND f.is_derived
    GROUP BY f.subject_id, f.name, s.subject_id, s.name, s.method, s.r
),
judged AS (
    SELECT
        *,
        corr(std_gap, score_gap) OVER baselines AS agreement,
        count(std_gap + score_gap) OVER baselines AS pairs
    FROM gaps
    WINDOW baselines AS (PARTITION BY baseline_id)
)
SELECT
    baseline, subject, method, r, matrices, std_gap, 1e4 * std_gap AS std_gap_e4, score, score_gap,
    CASE WHEN pairs > 2 AND isfinite(agreement) THEN agreement END AS correlation,
    baseline_id, subject_id
FROM judged
WHERE $subject IS NULL OR subject_id = $subject::INTEGER
ORDER BY baseline_id, std_gap, subject_id;
