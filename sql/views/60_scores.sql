-- What a run reached: the last value of each of its metrics.
CREATE OR REPLACE VIEW run_scores AS
SELECT
    r.run_id, r.name AS run, r.method, r.task, r.seed, r.subject_id,
    m.name AS metric, max(m.step) AS step, arg_max(m.value, m.step) AS value,
    r.sweep, r.label, r.r, r.model, r.status, r.parameters, r.head_parameters
FROM runs r
JOIN metrics m USING (run_id)
GROUP BY ALL;

-- The score of each subject: the one given, as JSON [{"subject_id": 3, "score": 78.4}, ...], or else the mean of
-- the last values of this metric over the subject's runs.
CREATE OR REPLACE MACRO subject_scores(metric_name, given) AS TABLE
WITH told AS (
    SELECT row.subject_id, row.score
    FROM (SELECT unnest(from_json(given::JSON, '[{"subject_id": "INTEGER", "score": "DOUBLE"}]')) AS row)
),
reached AS (
    SELECT subject_id, avg(value) AS score FROM run_scores WHERE metric = metric_name GROUP BY subject_id
)
SELECT subject_id, coalesce(told.score, reached.score) AS score
FROM told
FULL JOIN reached USING (subject_id)
WHERE subject_id IS NOT NULL;
