//! `backlog`: work with none waiting, and with very many others in the same lane.

use serde_json::json;

use super::super::Failure;
use super::figures::{Fields, median_least_most, rate, rounded};
use super::load::{self, Standing};
use super::work::{insert_cost, process};
use super::{Mode, Setting};

/// Works the same messages off from a store that holds nothing else and from one with the backlog, in
/// turn, so that what the machine does meanwhile meets both.
pub(super) async fn backlog(setting: &Setting, mode: Mode) -> Result<Fields, Failure> {
    let bare = setting.place.open("").await?;
    let full = setting.place.open(".backlog").await?;
    let (standing, word) = match mode {
        Mode::Scheduled => (Standing::Scheduled, "scheduled"),
        Mode::Priority => (Standing::Low, "priority"),
    };
    setting
        .progress
        .about(&format!("backlog, {word}: {} others in", setting.backlog));
    let loaded = load::bulk(&full.store, setting.backlog, setting.producers, standing).await?;
    let (count, mut none, mut with, mut ratios) = (setting.messages, vec![], vec![], vec![]);
    let mut others = 0;
    let mut costs = [vec![], vec![]];
    for pair in 0..setting.pairs {
        let about = format!("backlog, {word}: pair {} of {}:", pair + 1, setting.pairs);
        setting.progress.about(&about);
        // Whoever goes second finds a warmer machine.
        let bare_first = pair % 2 == 0;
        let mut rates = [0.0, 0.0];
        for is_bare in [bare_first, !bare_first] {
            let (place, after) = if is_bare {
                (&bare, None)
            } else {
                (&full, loaded.last)
            };
            let ran = process(setting, &place.store, count, after).await?;
            others += ran.others;
            rates[usize::from(!is_bare)] = rate(count, ran.work);
            costs[usize::from(!is_bare)].extend(ran.work_cpu_us);
        }
        let [bare_rate, full_rate] = rates;
        none.push(bare_rate);
        with.push(full_rate);
        ratios.push(full_rate / bare_rate);
    }
    let mut fields = Fields::new();
    fields.insert("mode".to_owned(), json!(word));
    fields.insert("backlog".to_owned(), json!(setting.backlog));
    fields.insert("n".to_owned(), json!(count));
    fields.insert("pairs".to_owned(), json!(setting.pairs));
    for (name, rates) in [("none", none), ("with", with)] {
        let (median, least, most) = median_least_most(&rates);
        fields.insert(format!("{name}_per_s"), rounded(median));
        fields.insert(format!("{name}_min"), rounded(least));
        fields.insert(format!("{name}_max"), rounded(most));
    }
    fields.insert("ratio".to_owned(), rounded(median_least_most(&ratios).0));
    for (name, costs) in ["none_cpu_us", "with_cpu_us"].into_iter().zip(costs) {
        let median = (!costs.is_empty()).then(|| median_least_most(&costs).0);
        insert_cost(&mut fields, name, median);
    }
    fields.insert("others_done".to_owned(), json!(others));
    fields.insert(
        "backlog_enqueue_per_s".to_owned(),
        rounded(rate(setting.backlog, loaded.took)),
    );
    Ok(fields)
}
