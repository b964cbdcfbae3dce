-- How good are merged models, by method and t, beside what they were merged from and the paper's (Table 4)?
-- param subject = NULL: only this merged model and what went into it; all when NULL
-- param metric = score: the metric of the runs that is the score; its last value counts
-- param scores = NULL: scores instead of those of runs, as JSON [{"subject_id": 3, "score": 43.7, "mmstar": 42.3}, ...]
-- `average` is the score of a subject, or else the mean of the seven benchmarks where it has all; a model that was not
-- scanned has the score of the run whose difference it is. `gain` is over plain averaging of the same models. The paper
-- merges two that were tuned from LLaVA-v1.5-13B.
WITH told AS (
    SELECT row.subject_id, row.mathvista, row.mmstar, row.mmmu, row.wemath, row.ai2d, row.dynamath, row.geoqa
    FROM (SELECT unnest(from_json($scores::JSON, '[{"subject_id": "INTEGER", "mathvista": "DOUBLE",
        "mmstar": "DOUBLE", "mmmu": "DOUBLE", "wemath": "DOUBLE", "ai2d": "DOUBLE", "dynamath": "DOUBLE",
        "geoqa": "DOUBLE"}]')) AS row)
),
merges AS (
    SELECT
        subject_id, name, spec ->> 'method' AS method, spec ->> 'base' AS base,
        list_sort((spec -> 'models')::VARCHAR[]) AS models,
        CASE WHEN method = 'outlier' THEN try_cast(coalesce(spec -> 'parameters' ->> 't', '3') AS DOUBLE) END AS t,
        t = 'Infinity'::DOUBLE OR method = 'linear' AND len(models) > 1
            AND list_distinct((spec -> 'own_parameters')::JSON[]) = ['{}'::JSON]
            AND coalesce(spec -> 'parameters' ->> 'normalize', 'true') = 'true' AS is_plain
    FROM subjects
    WHERE kind = 'merge' AND status = 'complete' AND json_type(spec -> 'models') = 'ARRAY'
        AND ($subject IS NULL OR subject_id = $subject::INTEGER)
),
families AS (
    SELECT models, min(subject_id) AS family, any_value(base) AS base FROM merges GROUP BY models
),
places AS (  -- what went into them, by where it lies
    SELECT family, 0 AS position, base AS uri FROM families WHERE base IS NOT NULL
    UNION ALL
    SELECT family, generate_subscripts(models, 1), unnest(models) FROM families
),
found AS (
    SELECT
        p.family, p.position, p.uri,
        arg_max(s.name, s.subject_id) FILTER (s.kind NOT IN ('delta', 'adapter')) AS name,
        max(s.subject_id) FILTER (s.kind NOT IN ('delta', 'adapter')) AS subject_id,
        max(s.subject_id) FILTER (s.kind = 'delta') AS delta_id
    FROM places p
    LEFT JOIN subjects s
        ON s.status = 'complete' AND (s.kind NOT IN ('delta', 'adapter') AND s.uri = p.uri
            OR s.kind = 'delta' AND p.position > 0 AND s.spec ->> 'tuned' = p.uri)
    GROUP BY ALL
),
members AS (
    SELECT
        family, position, coalesce(name, regexp_extract(uri, '([^/@]+)/*(@[^/]*)?$', 1)) AS name, subject_id, delta_id,
        CASE position WHEN 0 THEN 'base' ELSE 'tuned' END AS kind, NULL AS method, NULL AS t, false AS is_plain
    FROM found
    UNION ALL
    SELECT f.family, NULL, m.name, m.subject_id, NULL, 'merge', m.method, m.t, m.is_plain
    FROM merges m
    JOIN families f USING (models)
),
everything AS (
    SELECT
        'ours' AS source, m.family, m.position, m.name AS subject, m.kind, m.method, m.t, m.is_plain,
        b.* EXCLUDE (subject_id), coalesce(x.score, y.score) AS score
    FROM members m
    LEFT JOIN told b ON b.subject_id = m.subject_id
    LEFT JOIN subject_scores($metric, $scores) x ON x.subject_id = m.subject_id
    LEFT JOIN subject_scores($metric, $scores) y ON y.subject_id = m.delta_id
    UNION ALL BY NAME
    SELECT 'paper' AS source, 0 AS family, kind = 'merge' AND t IS NULL AS is_plain, *
    FROM (VALUES
        (0, 'LLaVA-v1.5-13B', 'base', NULL, NULL::DOUBLE, 34.3e0, 37.0e0, 27.7e0, NULL::DOUBLE, 61.1e0, NULL::DOUBLE, NULL::DOUBLE),
        (1, 'LLaVA-1.6-13B', 'tuned', NULL, NULL, 33.6, 40.2, 42.6, 30.1, 67.9, 20.3, 23.9),
        (2, 'Math-LLaVA', 'tuned', NULL, NULL, 45.8, 42.8, 42.0, 33.9, 66.7, 22.9, 46.6),
        (NULL, 'Average', 'merge', 'linear', NULL, 43.7, 42.5, 43.0, 35.2, 69.3, 22.6, 41.2),
        (NULL, 'Ours', 'merge', 'outlier', 3, 44.4, 42.3, 44.0, 38.2, 71.2, 24.7, 41.4),
        (NULL, 'Ours', 'merge', 'outlier', 2, 46.0, 43.5, 44.0, 38.4, 70.1, 25.6, 44.2)
    ) AS paper(position, subject, kind, method, t, mathvista, mmstar, mmmu, wemath, ai2d, dynamath, geoqa)
    WHERE EXISTS (FROM merges)
),
averaged AS (
    SELECT *, coalesce(score, (mathvista + mmstar + mmmu + wemath + ai2d + dynamath + geoqa) / 7) AS average
    FROM everything
)
SELECT
    source, subject, kind, method, t, mathvista, mmstar, mmmu, wemath, ai2d, dynamath, geoqa, average,
    CASE WHEN kind = 'merge' AND NOT is_plain
         THEN average - avg(average) FILTER (is_plain) OVER (PARTITION BY source, family) END AS gain
FROM averaged
ORDER BY source, family, position NULLS LAST, NOT is_plain, t DESC NULLS LAST, method, subject;
