-- Schema 2. Any number of knobs, and curves without losses.
ALTER TABLE trial ADD COLUMN others TEXT NOT NULL DEFAULT '[]';
CREATE TABLE curve_2 (
    job INTEGER NOT NULL REFERENCES job (id),
    epoch INTEGER NOT NULL,
    train_loss REAL,
    val_loss REAL,
    val_top1 REAL NOT NULL,
    PRIMARY KEY (job, epoch)
) WITHOUT ROWID;
INSERT INTO curve_2 SELECT * FROM curve;
DROP TABLE curve;
ALTER TABLE curve_2 RENAME TO curve;
