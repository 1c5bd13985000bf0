/** How something stands, for the eye. Colour is never the only sign: every tone comes with a word and an icon. */
export type Tone = "quiet" | "progress" | "attention" | "good" | "unsure" | "bad";
