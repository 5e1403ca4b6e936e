/**
 * Countdown ends after some seconds by either of two clocks: one may stand still while the device sleeps, the other may
 * be set back.
 */
export class Countdown {
  private readonly timer: ReturnType<typeof setInterval>;
  private readonly began = { steady: performance.now(), wall: Date.now() };

  constructor(
    private readonly seconds: number,
    private readonly tick: (left: number) => void,
    private readonly end: () => void,
  ) {
    this.timer = setInterval(() => this.look(), 250);
    document.addEventListener("visibilitychange", this.look); // timers of pages in the background run late
    tick(seconds);
  }

  stop(): void {
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.look);
  }

  private readonly look = (): void => {
    const passed = Math.max(performance.now() - this.began.steady, Date.now() - this.began.wall) / 1000;
    const left = Math.ceil(this.seconds - passed);
    if (left > 0) {
      this.tick(left);
      return;
    }
    this.stop();
    this.end();
  };
}
