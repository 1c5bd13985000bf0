use base64::Engine;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let every: f64 = args[1].parse().unwrap();
    for f in &args[2..] {
        let text = std::fs::read_to_string(f).unwrap();
        let mut lines = text.lines();
        let h: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let size = terminal::Size { cols: h["width"].as_u64().unwrap() as u16, rows: h["height"].as_u64().unwrap() as u16 };
        let mut out = Vec::new();
        println!("##### {f} {:?}", h["argv"]);
        let mut last = 0.0; let mut shown = String::new();
        let show = |t: f64, out: &[u8], shown: &mut String| { let s = terminal::paint(size, out); let r: Vec<_> = s.rows.iter().filter(|r| !r.is_empty()).cloned().collect(); let text = r.join("\n"); if &text != shown { println!("--- t={t:.2} title={:?} cursor={:?}\n{text}", s.title, s.cursor); *shown = text; } };
        let mut t = 0.0;
        for l in lines {
            let e: serde_json::Value = serde_json::from_str(l).unwrap();
            t = e["t"].as_f64().unwrap();
            if every > 0.0 && t - last > every { show(t, &out, &mut shown); last = t; }
            let b = base64::engine::general_purpose::STANDARD.decode(e["b"].as_str().unwrap()).unwrap();
            match e["k"].as_str().unwrap() { "o" => out.extend(b), "i" => { show(t, &out, &mut shown); println!("<<< {t:.2} {:?}", String::from_utf8_lossy(&b)); } _ => println!("=== {:?}", String::from_utf8_lossy(&b)) }
        }
        show(t, &out, &mut shown);
    }
}
