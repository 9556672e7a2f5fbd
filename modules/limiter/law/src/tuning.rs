//! The constants of the law. They were chosen on seeds 1 to 50 of `bench/overload`; figures are of other seeds.

/// Ticks by which rates are carried on at most.
pub(crate) const MOST_LEAD: f64 = 2.5;
/// Late calls in a tick below which nothing is concluded.
pub(crate) const FEW_CALLS: f64 = 5.0;
/// Share of late answers that is an overload.
pub(crate) const LATE_SHARE: f64 = 0.05;
/// Share of late answers that leaves little to measure by.
pub(crate) const MANY_LATE: f64 = 0.3;
/// Wait in the queue, as a share of the SLO, that is an overload.
pub(crate) const WAIT_SHARE: f64 = 0.3;
/// Wait in the queue, as a share of the SLO, that is left alone.
pub(crate) const QUEUE_SHARE: f64 = 0.08;
/// Used share of the CPU limit above which pods are busy.
pub(crate) const BUSY: f64 = 0.85;
/// Limit in overload, as a share of the capacity.
pub(crate) const AIM: f64 = 0.97;
/// Ceiling in calm, as a share of the capacity.
pub(crate) const CEILING: f64 = 1.07;
/// Change of the ceiling that is worth a write.
pub(crate) const CEILING_BAND: f64 = 0.1;
/// Change of the limit that is worth a write.
pub(crate) const BAND: f64 = 0.04;
/// What is admitted at least while the queue empties, as a share of the capacity.
pub(crate) const LEAST: f64 = 0.1;
/// Factor of a capacity that proved too high.
pub(crate) const CUT: f64 = 0.75;
/// Offered share of the capacity below which a limit is not needed.
pub(crate) const SPARE: f64 = 0.92;
/// Ticks without need after which the limit is lifted.
pub(crate) const IDLE_TICKS: u32 = 3;
/// Share of the window that must lie after a change, before measurements are taken for its effect.
pub(crate) const CLEAN: f64 = 0.67;
/// Time from a decision to its effect, as a share of the interval; where `in_force` shows that it takes longer, that counts.
pub(crate) const DELIVERY: f64 = 0.2;
/// Growth of the base time of an answer in each tick, so that an old minimum is forgotten.
pub(crate) const BASE_DRIFT: f64 = 1.002;
/// Growth of a proven capacity in each calm tick without another measure.
pub(crate) const FORGET: f64 = 1.003;
/// Capacity as a share of the accepted rate, when less is overload than was known to be fine.
pub(crate) const FELL: f64 = 0.6;
/// CPU use below which a limit leaves room.
pub(crate) const ROOM: f64 = 0.93;
/// Largest raise in one tick.
pub(crate) const MOST_RAISE: f64 = 1.5;
/// Share of late answers of a single pod that makes it differ from the others.
pub(crate) const OUTLIER_LATE: f64 = 0.5;
/// Ticks in a row that a pod must differ.
pub(crate) const OUTLIER_TICKS: u32 = 3;
/// Ticks in a row after which it is one of many again.
pub(crate) const OUTLIER_WELL_TICKS: u32 = 18;
/// Calm tokens of a bucket at least, so that chance refuses nobody below the ceiling.
pub(crate) const CALM_TOKENS: f64 = 40.0;
/// Time that a full bucket lasts below an armed ceiling, and in an overload, in seconds.
pub(crate) const CALM_BUCKET: f64 = 0.45;
/// See `CALM_BUCKET`.
pub(crate) const BUCKET: f64 = 0.1;
/// Time from the held limit to the fallback, in seconds.
pub(crate) const RAMP: f64 = 60.0;
/// Raise where nothing but the absence of a queue says that there is room.
pub(crate) const BLIND_RAISE: f64 = 1.15;
/// The first of such raises; each further one in a row is twice as large.
pub(crate) const FIRST_RAISE: f64 = 0.045;
/// Time without raises after one was in vain, doubled each time, in seconds.
pub(crate) const QUIET: f64 = 15.0;
/// By how much a queue that nobody measured is taken longer than it was estimated: a rest of it costs more than a pause.
pub(crate) const MARGIN: f64 = 1.4;
/// Share of late answers that says that nothing is answered in time.
pub(crate) const MOST_LATE: f64 = 0.6;
/// Intervals after a change, and the SLO, from which the newest measurements are of its effect.
pub(crate) const RECENT: f64 = 0.5;
/// First step after a queue of unknown length, as a share of the capacity.
pub(crate) const HALF: f64 = 0.6;
/// Factor of the capacity when a queue did not empty as was thought, before `CUT`.
pub(crate) const FIRST_CUT: f64 = 0.95;
/// Share of errors that makes a pod no measure of the others.
pub(crate) const FAILING: f64 = 0.5;
/// CPU use that says that the queue is empty.
pub(crate) const IDLE_CPU: f64 = 0.8;
/// Growth of the usable part of the CPU in each tick without harm.
pub(crate) const FORGET_PART: f64 = 1.001;
/// The usable part of the CPU at least.
pub(crate) const LEAST_CPU_PART: f64 = 0.6;
/// Time for which a new pod is taken to be slower than the others, in seconds.
pub(crate) const WARM_S: f64 = 40.0;
/// Limit of a new pod, as a share of the limit of the others.
pub(crate) const WARM_SHARE: f64 = 0.45;
/// CPU use and calls in a window from which a pod's work per CPU is compared with that of the others.
pub(crate) const SLOW_CPU: f64 = 0.3;
/// See `SLOW_CPU`.
pub(crate) const SLOW_CALLS: f64 = 100.0;
/// Work per CPU, as a share of that of the others, that makes a pod slow.
pub(crate) const SLOW_SHARE: f64 = 0.65;
/// Part of a capacity under which a queue grows soon after a change.
pub(crate) const SOON_LESS: f64 = 0.93;
/// Requests in queues below which nothing is concluded from them.
pub(crate) const FEW_QUEUED: f64 = 20.0;
/// Share of the calls of a window that a queue must hold back for its growth to be seen in the rates.
pub(crate) const TELLING: f64 = 0.05;
/// Share of late answers up to which a longer time does no harm.
pub(crate) const FEW_LATE: f64 = 0.03;
/// Share of what a queue holds back that may be missing where there is none.
pub(crate) const PACE: f64 = 0.3;
/// Measured share of the ceiling from which an extrapolated rate above it is believed.
pub(crate) const NEAR: f64 = 0.9;
/// Wait in the queue, as a share of the SLO, from which a limit that held until then is lowered: below it nothing is late, and
/// chance moves it up and down.
pub(crate) const STANDING: f64 = 0.24;
/// What a queue that grows in the first step says of the capacity at least, as a share of what was thought.
pub(crate) const LEAST_FOUND: f64 = 0.3;
/// Difference up to which a limit in force is the one that was decided: buckets hold whole tokens.
pub(crate) const NEARLY: f64 = 0.03;
/// Ticks after which a larger difference that stays is none of time.
pub(crate) const UNLIKE_TICKS: u32 = 4;
