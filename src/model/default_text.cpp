// Written for this program; every paragraph is a prompt. Of each kind one stands among the first 2048 tokens.
#include "model/calibration.hpp"

namespace geom {

std::string_view default_text() noexcept {
    return R"text(The Danube rises in the Black Forest and reaches the Black Sea after almost 2,900 kilometres, having passed through or along ten countries. No other river touches as many. Four of the cities on its banks are capitals: Vienna, Bratislava, Budapest and Belgrade.

A train leaves at 09:40 and travels 210 km at 84 km/h. The journey takes 210 / 84 = 2.5 hours, so it arrives at 12:10. A second train needs 3 hours for the same way; its speed is 70 km/h, fourteen less than that of the first.

Solve 5x - 8 = 2x + 19. Subtract 2x on both sides: 3x - 8 = 19. Add 8: 3x = 27. Divide by 3: x = 9. To check, 5 * 9 - 8 = 37 and 2 * 9 + 19 = 37, so both sides agree.

def merge_intervals(intervals):
    """Joins intervals (start, end) that overlap or touch."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
assert merge_intervals([(8, 10), (1, 3), (2, 6)]) == [(1, 6), (8, 10)]

Im Herbst fahren viele Familien in die Berge, um Pilze zu suchen. Wer sich nicht auskennt, sollte jeden Fund prüfen lassen, denn manche giftige Art sieht einer essbaren zum Verwechseln ähnlich. Übrigens: Ein guter Korb ist besser als jede Plastiktüte.

#include <stdio.h>
#include <stdlib.h>
struct node { int value; struct node *next; };
static struct node *push(struct node *head, int value) {
    struct node *fresh = malloc(sizeof *fresh);
    if (fresh == NULL) { perror("malloc"); exit(EXIT_FAILURE); }
    fresh->value = value;   /* the new node comes first */
    fresh->next = head;
    return fresh;
}

The rain has borrowed every roof
to practise on, and keeps no time;
it asks the gutters for their proof
and gets an answer, not a rhyme.
I lie awake and hear it learn,
one patient finger, then a hand,
and wait for silence to return
and tell me what I understand.

Le boulanger de la rue voisine ouvre à six heures, mais l'odeur du pain arrive bien avant lui. Ma grand-mère disait que c'était le seul réveil qu'elle acceptait sans protester. « Encore cinq minutes », répondait mon grand-père, et il en prenait vingt.

The lamp in the keeper's room had been burning since four. Outside, the sea had gone the colour of slate, and the gulls, which usually quarrelled until dark, were sitting on the wall in a row, all facing the same way. Marta put down her pen. In the eleven years that she had kept the light she had seen this twice, and both times the storm had come before midnight.

"Did you lock the shed?" she asked. "I did," said Jonas, who was nine and had not. He looked at the window, then at his boots, then at the window again. "Almost," he added. She handed him his coat without a word, and together they went down the hundred and six steps, he counting aloud, she listening to the wind.

SELECT c.name, COUNT(o.id) AS orders, SUM(o.total) AS spent
FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id
WHERE c.country = 'PT' AND (o.placed_at >= '2024-01-01' OR o.id IS NULL)
GROUP BY c.name HAVING COUNT(o.id) < 5
ORDER BY spent DESC NULLS LAST LIMIT 20;

Зимой река замерзает, и дети ходят в школу прямо по льду. Весной учитель каждое утро проверяет его длинной палкой, а потом говорит: «Сегодня идём через мост». Дорога становится длиннее на два километра, но никто не жалуется.

It is often said that a city which builds more roads will have less congestion. The evidence points the other way. A wider road makes driving quicker for a while; because it is quicker, more people drive, and some move further out, until the journey takes as long as before. The benefit is real, but it is a benefit in distance, not in time. Whoever wants shorter journeys has to shorten the way between homes and work, or make room for those who do not need a car.

El tren se detuvo en medio de la llanura y nadie supo por qué. ¿Una avería? ¿Un animal en la vía? Después de media hora, el revisor pasó por los vagones con una caja de naranjas y dijo: «Cortesía del maquinista, que está esperando a que baje el sol».

fn word_lengths(text: &str) -> std::collections::BTreeMap<usize, Vec<&str>> {
    let mut by_length = std::collections::BTreeMap::new();
    for word in text.split_whitespace() {
        by_length.entry(word.len()).or_insert_with(Vec::new).push(word);
    }
    by_length
}
fn main() {
    for (length, words) in &word_lengths("the quick way is not always the best") {
        println!("{length:>3}: {}", words.join(", "));
    }
}

昨天晚上下了一场大雨,今天早上空气特别清新。爷爷在院子里浇花,我问他:“刚下过雨,为什么还要浇水?”他笑着说:“雨下在屋檐外面,这几盆花在屋檐下面。”

Interviewer: You spent six months in Antarctica. What did you miss most?
Engineer: Smells. There is snow, diesel and coffee, and that's it. When I stepped off the plane in Punta Arenas, it had just rained, and I stood there and breathed like a dog at a car window.
Interviewer: Would you go again?
Engineer: Ask me in spring. No, wait: yes. I would.

Let f(x) = x^3 - 6x^2 + 9x + 1. Then f'(x) = 3x^2 - 12x + 9 = 3(x - 1)(x - 3), which vanishes at x = 1 and x = 3. Since f''(x) = 6x - 12 is negative at 1 and positive at 3, the function has a local maximum f(1) = 5 and a local minimum f(3) = 1.

駅前の小さな本屋は、今月いっぱいで閉店するそうです。子どものころ、毎週土曜日に父と一緒に通いました。最後にもう一度だけ、あの古い木の匂いをかぎに行こうと思います。

Q: A box holds three red and five blue balls. Two are drawn without looking and without putting the first one back. How likely is it that both are red? A: The first is red with probability 3/8, and then the second with 2/7. Together that makes 3/8 * 2/7 = 6/56 = 3/28, a little less than 11%.

في الصباح الباكر يفتح الصياد نافذته وينظر إلى البحر قبل أن يشرب قهوته. إذا كان الماء هادئا خرج بقاربه، وإذا هبت الريح بقي في البيت يصلح شباكه ويحكي لأحفاده القصة نفسها.

Chlorophyll looks green because it absorbs red and blue light and reflects what lies between them. The energy it takes up splits water into oxygen, protons and electrons; the oxygen leaves the leaf, and everything else goes into the making of sugar.

O mercado abre cedo. Às sete da manhã já não há sardinhas, e quem chega tarde leva conselhos em vez de peixe. La nonna, invece, compra solo quello che può portare con una mano: nell'altra tiene il bastone, e con quello indica il prezzo che le sembra giusto.

오늘은 날씨가 좋아서 친구와 함께 산에 올라갔다. 정상에서 김밥을 먹고 있는데 까치 한 마리가 다가와 우리를 쳐다보았다. 친구가 웃으며 말했다. "자리값을 내라는 것 같은데?"

Water boils at a lower temperature on a mountain because the air above it presses down less. At sea level it takes 100 degrees Celsius; at 3,000 metres about 90 are enough, so an egg there has to stay in the pot for longer, although the water around it is boiling just as hard.

A baker sells 48 rolls in the morning and half as many in the afternoon. Each costs 35 cents. In the morning she takes 48 x 0.35 = 16.80, in the afternoon 24 x 0.35 = 8.40, so that day's rolls bring her 16.80 + 8.40 = 25.20.

17 + 26 = 43. 91 - 38 = 53. 12 x 13 = 156. 144 / 9 = 16. 2^10 = 1024. 7! = 5040. The primes below 40 are 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31 and 37. One third of 0.9 is 0.3, and 15% of 240 is 36.

Theorem. The square root of 2 is irrational. Proof. Suppose that it equals p/q with integers p and q that have no common divisor. Then p^2 = 2q^2, so p is even, say p = 2r. Then 4r^2 = 2q^2, hence q^2 = 2r^2 and q is even as well, which contradicts the choice of p and q.

const waitFor = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function fetchWithRetry(url, attempts = 3) {
  for (let i = 0; i < attempts; i++) {
    const response = await fetch(url);
    if (response.ok) return response.json();
    await waitFor(2 ** i * 100); // 100, 200, 400 ms
  }
  throw new Error(`gave up on ${url} after ${attempts} attempts`);
}

{"id": 4711, "title": "Garden chair, folding", "price": {"amount": 39.90, "currency": "EUR"}, "tags": ["outdoor", "wood"], "stock": null, "reviews": [{"stars": 5, "text": "Sturdy."}, {"stars": 2, "text": "Arrived scratched."}]}

At the edge of the village stood a clock that nobody wound. It showed twenty past seven, winter and summer, and people had grown fond of it, because twice a day it was right, which was more than could be said of the mayor. When at last a stranger repaired it, the council met the same evening to discuss what was to be done.

Should a museum return what it acquired long ago and unjustly? One may object that the past cannot be undone, that the objects are safe where they are, and that more people see them there. But safety is no title of ownership, and a large audience is not the right one merely because it is large. The better question is who ought to decide; and to that the answer cannot be: those who happen to have the keys.

Customer: Hi, my parcel says "delivered", but I don't have it :(
Agent: I'm sorry to hear that! Could you give me the order number, please?
Customer: It's #88-20471. I was at home all day, nobody rang.
Agent: Thanks. The driver's note says that he left it with a neighbour at number 14. Could you check there? If it isn't there, we'll send a new one today, free of charge.

November. On the empty line
a single peg, a single glove.
Somebody waved. It was not mine,
this small blue hand, these clouds above.

Onion soup for four: cut 800 g of onions into thin rings and let them soften in 40 g of butter over a low flame for half an hour, stirring now and then, until they are brown but not burnt. Add a spoonful of flour, then 1.2 litres of stock and a glass of white wine. Simmer for 20 minutes. Put a slice of toasted bread and some grated cheese into each bowl, pour in the soup, and grill until the cheese bubbles.

To reset the device, (1) switch it off, (2) hold the button on its back for ten seconds, and (3) switch it on again while you are still holding the button. The light blinks twice. If it blinks three times, the memory is damaged: return the device to your dealer. Warning! All settings will be lost.

Dear Ms Okafor, thank you for your letter of 3 May. We have read your proposal with interest and would like to discuss it with you in person. Would Thursday the 16th, at 2 p.m., suit you? Our office is at 27 Harbour Street, on the second floor. Yours sincerely, P. Lindqvist

The patient, a 54-year-old man, presented with chest pain that had lasted for two hours. Blood pressure was 150/95 mmHg, heart rate 88 per minute and regular. The first electrocardiogram was normal; troponin was raised after three hours (0.21 ng/mL). He was given aspirin and transferred to the cardiac unit.

The tenant shall pay the rent in advance, no later than the third working day of each month. If the tenant is in arrears with two payments in a row, the landlord may terminate this agreement in writing without notice, unless the arrears are settled before the termination is received.

In 1854 a doctor in London marked the deaths of a cholera outbreak on a map and found them crowded around one pump. The handle of the pump was taken off. Historians still argue about whether this ended the outbreak, which was already fading; nobody doubts that the map changed how people think about disease.

गाँव के स्कूल में केवल दो कमरे हैं, इसलिए छोटी कक्षाएँ पेड़ के नीचे बैठती हैं। जब बारिश होती है, तो सब बच्चे एक ही कमरे में आ जाते हैं और पढ़ाई की जगह कहानियाँ सुनते हैं।

| month | rain (mm) | days | warmest (°C) |
|-------|-----------|------|--------------|
| March | 61.4      | 12   | 17.8         |
| April | 38.0      | 9    | 22.1         |
| May   | 74.9      | 14   | 26.5         |

2024-06-11 03:12:45.118 WARN  [pool-2-thread-7] c.e.store.Cache - evicted 1,024 entries in 87 ms (limit 64 MiB)
2024-06-11 03:12:45.302 ERROR [main] c.e.store.Server - cannot bind 0.0.0.0:8080: address already in use (errno 98)

Is it true that goldfish forget everything after a few seconds? No. They can be taught to press a lever for food, to come at a signal, and to remember both for months. The tale has probably lasted because it is comforting: a bowl seems large enough for somebody who has never seen it before.
)text";
}

}  // namespace geom
