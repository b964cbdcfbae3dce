-- With which hyper-parameters are models adapted to commonsense tasks: the paper's, our defaults, and runs' (Table 11)?
-- param sweep = NULL: only the runs of this sweep; all when NULL
-- param paper = NULL: the paper's settings and our defaults, as JSON; gaussmeter paper gives them
-- `batch` is how many examples an update sees, of all workers; of a run that does not say how many it had, of one.
-- dropout is that of the factors. Of runs: those that are complete; train_examples is NULL where all were used, epochs
-- where steps were asked for.
WITH paper AS (
    SELECT unnest(from_json(coalesce($paper, '[]')::JSON, '[{"number": "INTEGER", "source": "VARCHAR",
        "model": "VARCHAR", "label": "VARCHAR", "r": "INTEGER", "alpha": "DOUBLE", "optimiser": "VARCHAR",
        "schedule": "VARCHAR",
        "dropout": "DOUBLE", "warmup_steps": "INTEGER", "max_length": "INTEGER", "batch": "INTEGER",
        "learning_rate": "DOUBLE", "epochs": "DOUBLE", "modules": "VARCHAR"}]'), recursive := true)
),
used AS (
    SELECT sweep, model, label, r, spec -> 'training' AS t, spec -> 'method' AS m
    FROM runs
    WHERE status = 'complete' AND task = 'commonsense' AND ($sweep IS NULL OR sweep = $sweep)
),
everything AS (
    SELECT * FROM paper
    UNION ALL BY NAME
    SELECT
        'runs' AS source, u.sweep, u.model, u.label, nullif(u.r, 0) AS r, count(*) AS runs,
        CASE WHEN u.r > 0 THEN (m ->> 'alpha')::DOUBLE END AS alpha,
        p.optimiser, p.schedule,
        CASE WHEN u.r > 0 THEN (m ->> 'adapter_dropout')::DOUBLE END AS dropout,
        CASE WHEN (t ->> 'warmup_steps')::INTEGER = 0 THEN (t ->> 'warmup')::DOUBLE END AS warmup,
        nullif((t ->> 'warmup_steps')::INTEGER, 0) AS warmup_steps,
        (t ->> 'max_length')::INTEGER AS max_length,
        (t ->> 'batch')::INTEGER * (t ->> 'accumulate')::INTEGER * coalesce((t ->> 'workers')::INTEGER, 1) AS batch,
        (t ->> 'learning_rate')::DOUBLE AS learning_rate,
        CASE WHEN (t ->> 'steps')::BIGINT = 0 THEN (t ->> 'epochs')::DOUBLE END AS epochs,
        nullif((t ->> 'steps')::BIGINT, 0) AS steps,
        nullif((t ->> 'train_examples')::BIGINT, 0) AS train_examples,
        array_to_string((m -> 'modules')::VARCHAR[], ', ') AS modules
    FROM used u
    JOIN (
        SELECT any_value(optimiser) AS optimiser, any_value(schedule) AS schedule FROM paper WHERE source = 'default'
    ) p ON true
    GROUP BY ALL
)
SELECT
    source, sweep, model, label, r, runs, alpha, optimiser, schedule, dropout, warmup, warmup_steps, max_length, batch,
    learning_rate, epochs, steps, train_examples, nullif(modules, '') AS modules
FROM everything
ORDER BY array_position(['paper', 'default', 'runs'], source), number, sweep, model, r, label, learning_rate;
