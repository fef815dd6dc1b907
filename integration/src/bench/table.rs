//! The table for people.

use std::path::PathBuf;

use super::Row;

/// A Markdown table: one row per figure, one column per folder, with the ratio to the first folder.
pub(super) fn text(folders: &[PathBuf], rows: &[Row]) -> String {
    let names = folders.iter().map(|folder| folder.display().to_string());
    let mut lines = vec![
        line(["work".to_owned(), "unit".to_owned()].into_iter().chain(names)),
        line(
            ["---".to_owned(), "---".to_owned()].into_iter().chain(folders.iter().map(|_| "---:".to_owned())),
        ),
    ];
    lines.extend(rows.iter().map(|row| {
        let first = row.rates.first().map_or(0.0, |rates| median(rates));
        let cells = row.rates.iter().enumerate().map(|(position, rates)| match (position, median(rates)) {
            (0, rate) => short(rate),
            (_, rate) => format!("{} ({:.2})", short(rate), rate / first.max(1e-9)),
        });
        line([row.name.to_owned(), row.unit.to_owned()].into_iter().chain(cells))
    }));
    lines.concat()
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// Three significant digits.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::{Row, text};

    #[test]
    fn medians_are_shown_with_their_ratio_to_the_first_folder() {
        let rates = vec![vec![100.0, 1000.0, 200.0], vec![50.0]];
        let table = text(&["a".into(), "b".into()], &[Row { name: "create", unit: "files/s", rates }]);
        assert!(table.contains("| create | files/s | 200 | 50.0 (0.25) |"), "{table}");
    }
}
