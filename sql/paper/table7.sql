-- How far apart are the sigmas of two methods' transformation weights, beside their scores (Table 7)?
-- param a = NULL: a subject
-- param b = NULL: another subject; when not both are given, pairs of two methods at one rank and base, of runs of one task
-- param metric = score: the metric of the runs that is the score; its last value counts
-- param scores = NULL: scores instead of those of runs, as JSON [{"subject_id": 3, "score": 78.4}, ...]
-- The mean of |sigma_1 - sigma_2| over the matrices that both have at one place; _e4: times 10^4, as the paper prints it.
WITH paper(method_a, method_b, r, std_gap_e4) AS (VALUES
    ('dora', 'lora_dash', 4, 54), ('dora', 'lora_dash', 8, 45), ('dora', 'lora_dash', 16, 81),
    ('dora', 'lora_dash', 32, 2), ('dora', 'lora_dash', 64, 35)
),
chosen AS (
    SELECT
        s.subject_id, s.name, s.spec ->> 'method' AS method, try_cast(s.spec ->> 'r' AS INTEGER) AS r,
        s.spec ->> 'base' AS base, x.task, x.score
    FROM subjects s
    LEFT JOIN subject_scores($metric, $scores) x USING (subject_id)
    WHERE s.status = 'complete'
),
pairs AS (
    SELECT
        a.subject_id AS id_a, a.name AS subject_a, a.method AS method_a, a.score AS score_a,
        b.subject_id AS id_b, b.name AS subject_b, b.method AS method_b, b.score AS score_b,
        CASE WHEN a.r = b.r THEN a.r END AS r
    FROM chosen a
    JOIN chosen b ON a.subject_id <> b.subject_id
    WHERE ($a IS NULL OR a.subject_id = $a::INTEGER) AND ($b IS NULL OR b.subject_id = $b::INTEGER)
        AND ($a IS NOT NULL AND $b IS NOT NULL
            OR a.r = b.r AND coalesce(a.base = b.base, true) AND coalesce(a.task = b.task, true)
                AND a.method <> b.method
                AND ($a IS NOT NULL OR $b IS NOT NULL OR a.method < b.method))
)
SELECT
    p.r, p.subject_a, p.method_a, p.subject_b, p.method_b,
    count(*) AS matrices,
    std_gap(a.std, b.std) AS std_gap,
    1e4 * std_gap(a.std, b.std) AS std_gap_e4,
    1e4 * max(abs(a.std - b.std)) AS std_gap_max_e4,
    any_value(p.score_a) AS score_a,
    any_value(p.score_b) AS score_b,
    any_value(abs(p.score_a - p.score_b)) AS score_gap,
    any_value(paper.std_gap_e4) AS paper_std_gap_e4
FROM pairs p
JOIN tensor_stats a ON a.subject_id = p.id_a AND a.is_matrix
JOIN tensor_stats b ON b.subject_id = p.id_b AND b.is_matrix AND b.module = a.module
    AND b.part = a.part AND b.layer IS NOT DISTINCT FROM a.layer
LEFT JOIN paper ON paper.r = p.r
    AND paper.method_a = least(p.method_a, p.method_b) AND paper.method_b = greatest(p.method_a, p.method_b)
GROUP BY p.id_a, p.id_b, p.r, p.subject_a, p.method_a, p.subject_b, p.method_b
ORDER BY p.r, p.id_a, p.id_b;
