"""Which number an answer comes to: a table by hand, in the languages of MGSM and some more."""

# ruff: noqa: RUF001  digits and marks of many scripts are the subject

import time

import pytest

from selfimprove_pipeline import final_answer

NNBSP = "\u202f"
NBSP = "\u00a0"
THIN = "\u2009"

PLACES = [
    ("a number alone", "en", "18", "18"),
    ("zero", "en", "0", "0"),
    ("leading zeros", "en", "007", "7"),
    ("a plus sign", "en", "+18", "18"),
    ("no number", "en", "I cannot tell how many eggs she sells.", None),
    ("nothing", "en", "", None),
    ("a point that ends the sentence", "en", "She makes $18.", "18"),
    ("a comma that goes on", "en", "She has 18, I think", "18"),
    ("the last number of a text", "en", "16 eggs less 3 and 4 leave 9, so she makes 18", "18"),
    ("the last line of steps", "en", "1. 16 - 3 = 13\n2. 13 - 4 = 9\n3. 9 * 2 = 18 dollars", "18"),
    ("a chain of equations", "en", "16 - 3 - 4 = 9 = 9.0", "9"),
    ("an equation with money", "en", "9 x $2 = $18 every day", "18"),
    ("an unknown", "en", "So x = 42", "42"),
    ("bold", "en", "She makes **18** dollars.", "18"),
    ("bold with a currency", "en", "The total is **$1,250.00**", "1250"),
    ("code", "en", "`18`", "18"),
    ("italics with underscores", "en", "It is _18_ in all", "18"),
    ("an underlined blank before", "en", "____ 18", "18"),
    ("a name with a digit after a letter", "en", "There are 18 in room B2", "18"),
    ("a chemical formula", "en", "It weighs 18 g of CO2", "18"),
    ("a subscript", "en", "It is 18 = x_1", "18"),
    ("a square unit as one character", "en", "The area is 18 m²", "18"),
    ("a hyphen in a name", "en", "In covid-19", "19"),
    ("in brackets", "en", "eighteen (18)", "18"),
    ("in quotation marks", "en", 'It is "18"', "18"),
    ("spelled and in digits", "en", "eighteen dollars, that is 18 dollars", "18"),
]

STATED = [
    ("the answer is", "en", "The answer is 18.", "18"),
    ("the answer is, before a remark", "en", "The answer is 18. She sells 9 eggs at 2 each.", "18"),
    ("answer with a colon", "en", "Answer: 18\nCheck: 9 * 2", "18"),
    ("answer on the next line", "en", "Final answer:\n\n18 dollars (9 eggs at 2)", "18"),
    ("answer in bold", "en", "**Answer:** 18 of the 24", "18"),
    ("answer with money", "en", "The answer is $18, for 9 eggs.", "18"),
    ("answer in mathematics", "en", r"The answer is \(18\), from 9 eggs.", "18"),
    ("the last of two answers", "en", "The answer is 9? No, the answer is 18, from 9.", "18"),
    ("answer before a calculation", "en", "Answer: 16 - 3 - 4 = 9, and 9 * 2 = 18", "18"),
    ("answer before a sentence", "en", "Answer: Janet sells 9 eggs and makes 18", "18"),
    ("answer that is negative", "en", "The answer is -5, not 7", "-5"),
    ("hashes as GSM8K has them", "en", "9 * 2 = 18\n#### 18\n\nRow 7", "18"),
    ("hashes before thousands", "en", "#### 57,500", "57500"),
    ("in Spanish", "es", "La respuesta es 18. Vende 9 huevos.", "18"),
    ("in Spanish, final", "es", "La respuesta final es: 18 (9 por 2)", "18"),
    ("in Spanish with a colon", "es", "Respuesta: 18. Son 9 huevos", "18"),
    ("in German", "de", "Die Antwort ist 18. Es sind 9 Eier.", "18"),
    ("in German, stated", "de", "Die Antwort lautet: 18 (9 mal 2)", "18"),
    ("in German as a result", "de", "Ergebnis: 18 bei 9 Eiern", "18"),
    ("in French", "fr", "La réponse est 18. Il reste 9 œufs.", "18"),
    ("in French with a spaced colon", "fr", f"Réponse{NBSP}: 18 pour 9 œufs", "18"),
    ("in French without accents composed", "fr", "La re\u0301ponse est 18 pour 9", "18"),
    ("in Russian", "ru", "Ответ: 18. Осталось 9 яиц.", "18"),
    ("in Russian with a dash", "ru", "Ответ — 18 за 9 яиц", "18"),
    ("in Russian with a short dash", "ru", "Ответ - 18 за 9 яиц", "18"),
    ("in Swahili", "sw", "Jibu ni 18. Mayai ni 9.", "18"),
    ("in Swahili with a colon", "sw", "Jibu: 18 kwa mayai 9", "18"),
    ("in Chinese", "zh", "答案是18。她卖了9个鸡蛋。", "18"),
    ("in Chinese with a full-width colon", "zh", "答案：18，即9乘2", "18"),
    ("in Chinese as what it comes to", "zh", "所以答案为 18 元，共9个", "18"),
    ("in Japanese", "ja", "答えは18です。卵は9個です。", "18"),
    ("in Japanese with a full-width colon", "ja", "答え：18ドル（9個）", "18"),
    ("in Thai", "th", "คำตอบคือ 18 จากไข่ 9 ฟอง", "18"),
    ("in Thai with a colon", "th", "คำตอบ: 18 จาก 9", "18"),
    ("in Bengali", "bn", "উত্তর হল ১৮। ডিম ৯টি।", "18"),
    ("in Bengali with a colon", "bn", "উত্তর: ১৮ (৯টি ডিম)", "18"),
    ("in Telugu", "te", "సమాధానం 18. గుడ్లు 9.", "18"),
    ("in Telugu with a colon", "te", "జవాబు: ౧౮ (౯ గుడ్లు)", "18"),
    ("in English to a German question", "de", "The answer is 18, from 9.", "18"),
]

SENTENCES = [
    ("an English sentence", "en", "Janet makes 18 dollars every day at the market.", "18"),
    ("a Spanish sentence", "es", "Janet gana 18 dólares al día en el mercado.", "18"),
    ("a German sentence", "de", "Janet verdient jeden Tag 18 Dollar auf dem Markt.", "18"),
    ("a French sentence", "fr", "Janet gagne 18 dollars par jour au marché.", "18"),
    ("a Russian sentence", "ru", "Джанет зарабатывает 18 долларов в день.", "18"),
    ("a Swahili sentence", "sw", "Janet anapata dola 18 kila siku sokoni.", "18"),
    ("a Chinese sentence without spaces", "zh", "珍妮特每天赚18美元。", "18"),
    ("a Japanese sentence without spaces", "ja", "ジャネットは毎日18ドルを稼ぎます。", "18"),
    ("a Thai sentence without spaces", "th", "เจเน็ตได้เงิน18ดอลลาร์ทุกวัน", "18"),
    ("a Bengali sentence", "bn", "জ্যানেট প্রতিদিন ১৮ ডলার আয় করে।", "18"),
    ("a Bengali counter at the number", "bn", "মোট ১৮টি ডিম", "18"),
    ("a Telugu sentence", "te", "జానెట్ రోజుకు 18 డాలర్లు సంపాదిస్తుంది.", "18"),
]

SCRIPTS = [
    ("Bengali digits", "bn", "১২৩৪৫৬৭৮৯০", "1234567890"),
    ("Thai digits", "th", "๑๒๓๔๕๖๗๘๙๐", "1234567890"),
    ("Devanagari digits", "hi", "१२३४५६७८९०", "1234567890"),
    ("Telugu digits", "te", "౧౨౩౪౫౬౭౮౯౦", "1234567890"),
    ("Arabic-Indic digits", "ar", "١٢٣٤٥٦٧٨٩٠", "1234567890"),
    ("extended Arabic digits", "fa", "۱۲۳۴۵۶۷۸۹۰", "1234567890"),
    ("full-width digits", "ja", "１２３４５６７８９０", "1234567890"),
    ("Thai thousands", "th", "๗๐,๐๐๐ บาท", "70000"),
    ("Thai decimals", "th", "๑๒.๕", "12.5"),
    ("Bengali decimals", "bn", "১২.৫০ টাকা", "12.5"),
    ("Devanagari decimals", "hi", "१२.५", "12.5"),
    ("Arabic decimal mark", "ar", "١٢٫٥", "12.5"),
    ("Arabic thousands mark", "ar", "٧٠٬٠٠٠", "70000"),
    ("Arabic thousands and decimals", "fa", "۱٬۲۳۴٫۵", "1234.5"),
    ("Arabic digits between marks of direction", "ar", "\u200f١٨\u200e دولار", "18"),
    ("full-width comma and point", "ja", "１，２３４．５", "1234.5"),
    ("full-width minus", "ja", "－１８", "-18"),
    ("full-width percent", "zh", "１８％", "18"),
    ("full-width equation", "zh", "９×２＝１８", "18"),
    ("Bengali digits in a Swahili text", "sw", "Jibu ni ১৮", "18"),
    ("ten thousands in Chinese", "zh", "利润是7万元", "70000"),
    ("ten thousands with decimals", "zh", "共1.5万", "15000"),
    ("ten thousands with a space", "zh", "共 7 万元", "70000"),
    ("ten thousands and the rest", "ja", "7万5000円", "75000"),
    ("ten thousands and thousands", "ja", "7万5千円", "75000"),
    ("hundred millions", "ja", "3億円", "300000000"),
    ("kilograms in Chinese", "zh", "共5千克", "5"),
    ("kilometres in Chinese", "zh", "共18千米", "18"),
]

MARKS = [
    ("a comma groups in English", "en", "1,234", "1234"),
    ("a point groups in German", "de", "1.234", "1234"),
    ("a comma is decimal in German", "de", "1,234", "1.234"),
    ("a point is decimal in English", "en", "1.234", "1.234"),
    ("a comma is decimal in Spanish", "es", "1,234", "1.234"),
    ("a point groups in Spanish", "es", "5.000 dólares", "5000"),
    ("a comma groups in Mexican Spanish", "es-MX", "1,234", "1234"),
    ("a comma is decimal in French", "fr", "1,234", "1.234"),
    ("a comma is decimal in Russian", "ru", "1,234", "1.234"),
    ("a comma groups in Swahili", "sw", "70,000", "70000"),
    ("a comma groups in Thai", "th", "70,000", "70000"),
    ("a comma groups in Chinese", "zh", "70,000", "70000"),
    ("a comma groups in Japanese", "ja", "70,000円", "70000"),
    ("a comma groups in Bengali", "bn", "৭০,০০০", "70000"),
    ("a comma groups in Telugu", "te", "70,000", "70000"),
    ("a point is decimal in Swiss German", "de-CH", "1.234", "1.234"),
    ("a comma is decimal in Brazil", "pt-BR", "1,234", "1.234"),
    ("a language of no table has a point", "tlh", "1,234", "1234"),
    ("one decimal after a comma in English", "en", "2,5", "2.5"),
    ("one decimal after a point in German", "de", "2.5", "2.5"),
    ("two decimals after a comma", "de", "19,50 Euro", "19.5"),
    ("two decimals after a point in German", "de", "19.50", "19.5"),
    ("four decimals after a comma", "en", "0,1250", "0.125"),
    ("three decimals after zero in German", "de", "0.125", "0.125"),
    ("three decimals after zero in English", "en", "0,125", "0.125"),
    ("four digits before a point in German", "de", "1234.567", "1234.567"),
    ("four digits before a comma in English", "en", "1234,567", "1234.567"),
    ("both marks in English", "en", "1,234.50", "1234.5"),
    ("both marks in German", "de", "1.234,50", "1234.5"),
    ("English marks in German", "de", "1,234.50", "1234.5"),
    ("German marks in English", "en", "1.234,50", "1234.5"),
    ("both marks and three decimals", "de", "1,234.567", "1234.567"),
    ("two commas", "en", "1,234,567", "1234567"),
    ("two commas in German", "de", "1,234,567", "1234567"),
    ("two points", "de", "1.234.567", "1234567"),
    ("two points in English", "en", "1.234.567", "1234567"),
    ("millions with decimals", "en", "1,234,567.89", "1234567.89"),
    ("millions with a decimal comma", "es", "1.234.567,89", "1234567.89"),
    ("a space in French", "fr", "70 000 dollars", "70000"),
    ("a space in Russian", "ru", "1 234 567 рублей", "1234567"),
    ("a space and a decimal comma", "fr", "1 234,5", "1234.5"),
    ("a space in English is between two numbers", "en", "7 126", "126"),
    ("a narrow space in English", "en", f"70{NNBSP}000", "70000"),
    ("a narrow space in French", "fr", f"70{NNBSP}000", "70000"),
    ("a space that does not break", "en", f"1{NBSP}234{NBSP}567", "1234567"),
    ("a thin space", "ja", f"70{THIN}000", "70000"),
    ("a narrow space and decimals", "ru", f"1{NNBSP}234,75", "1234.75"),
    ("a space between two numbers in German", "de", "in 7 12", "12"),
    ("an apostrophe", "de", "70'000 Franken", "70000"),
    ("a typographic apostrophe", "fr", "1\N{RIGHT SINGLE QUOTATION MARK}234.50", "1234.5"),
    ("lakhs", "en", "1,23,456", "123456"),
    ("crores", "hi", "१,२३,४५,६७८", "12345678"),
    ("lakhs in Bengali", "bn", "১,২৩,৪৫৬ টাকা", "123456"),
    ("lakhs with decimals", "te", "12,34,567.50", "1234567.5"),
    ("decimals that are zero", "en", "18.00", "18"),
    ("decimals that are zero in German", "de", "18,00 Euro", "18"),
    ("decimals that are zero after thousands", "en", "$57,500.00", "57500"),
    ("a trailing zero", "en", "2.50", "2.5"),
    ("no digit before the point", "en", "It is .5 of it", "0.5"),
    ("an ellipsis", "en", "It is...18", "18"),
    ("a list without spaces", "en", "1,2,3", "3"),
    ("a list with spaces", "en", "1, 2, 3", "3"),
    ("a date", "en", "12.05.2023", "2023"),
    ("a time", "en", "5:30", "30"),
]

UNITS = [
    ("a dollar before", "en", "$18", "18"),
    ("a dollar after", "fr", "18 $", "18"),
    ("a dollar with a country", "en", "US$18", "18"),
    ("a dollar of three letters", "en", "USD 18", "18"),
    ("three letters without a space", "en", "USD18", "18"),
    ("rupees", "en", "Rs. 18", "18"),
    ("rupees without a space", "en", "Rs18", "18"),
    ("shillings", "sw", "KSh500", "500"),
    ("euros after", "de", "18 €", "18"),
    ("euros before", "en", "€18", "18"),
    ("yen", "ja", "¥1,800", "1800"),
    ("yen in full width", "ja", "￥１，８００", "1800"),
    ("baht", "th", "฿18", "18"),
    ("taka", "bn", "৳১৮", "18"),
    ("roubles", "ru", "18 ₽", "18"),
    ("thousands of dollars in Spanish", "es", "$57,500", "57500"),
    ("thousands of euros by a German", "en", "1.234 €", "1234"),
    ("dollars and cents in Spanish", "es", "$16,50", "16.5"),
    ("percent", "en", "60%", "60"),
    ("percent after a space", "fr", f"60{NBSP}%", "60"),
    ("percent with decimals", "de", "12,5 %", "12.5"),
    ("kilograms at the number", "en", "18kg", "18"),
    ("degrees", "en", "18°C", "18"),
    ("miles an hour", "en", "It runs at 18 mi/h", "18"),
]

SIGNS = [
    ("a hyphen as minus", "en", "-5", "-5"),
    ("a true minus", "en", "\N{MINUS SIGN}5", "-5"),
    ("a dash as minus", "en", "It is \N{EN DASH}5", "-5"),
    ("a minus after equals", "en", "3 - 8 = -5", "-5"),
    ("a minus right after equals", "en", "3-8=-5", "-5"),
    ("a minus before a dollar", "en", "-$5", "-5"),
    ("a minus after a dollar", "en", "$-5", "-5"),
    ("a subtraction", "en", "16 - 3", "3"),
    ("a subtraction without spaces", "en", "16-3", "3"),
    ("a subtraction with half the spaces", "en", "16 -3", "3"),
    ("a subtraction of a bracket", "en", "(16 + 1) -3", "3"),
    ("a range", "en", "16\N{EN DASH}18", "18"),
    ("a bullet", "en", "- 18 eggs", "18"),
    ("negative with decimals", "de", "-12,5", "-12.5"),
    ("negative thousands", "en", "-1,234", "-1234"),
    ("minus zero", "en", "-0", "0"),
]

FRACTIONS = [
    ("a half", "en", "1/2", "0.5"),
    ("a third", "en", "1/3", "1/3"),
    ("a negative fraction", "en", "It is -1/2", "-0.5"),
    ("a fraction that is whole", "en", "16/2", "8"),
    ("a fraction with spaces", "en", "16 / 2", "8"),
    ("a fraction that is computed", "en", "16/2 = 8", "8"),
    ("whole and part", "en", "2 1/2 hours", "2.5"),
    ("a half as one character", "en", "½", "0.5"),
    ("whole and half as characters", "en", "2½ hours", "2.5"),
    ("two thirds as one character", "en", "⅔", "2/3"),
    ("a fraction slash", "en", "3\N{FRACTION SLASH}4", "0.75"),
    ("Bengali digits in a fraction", "bn", "৩/৪", "0.75"),
    ("a date with strokes", "en", "5/6/2020", "2020"),
    ("over zero", "en", "5/0", "0"),
]

LATEX = [
    ("a box", "en", r"\boxed{18}", "18"),
    ("a box before more text", "en", r"$\boxed{18}$ dollars for 9 eggs", "18"),
    ("the last of two boxes", "en", r"\boxed{9} and \boxed{18}, from 9", "18"),
    ("a box with money", "en", r"\boxed{\$18}, 9 eggs", "18"),
    ("a box with a unit", "en", r"\boxed{18 \text{ dollars}} for 9", "18"),
    ("a box with a square unit", "en", r"\boxed{18\text{ m}^2} of 20", "18"),
    ("a box with a braced exponent", "en", r"\boxed{18\,\mathrm{cm}^{2}} of 20", "18"),
    ("a box with text alone inside", "en", r"\boxed{\text{18 dollars}} of 20", "18"),
    ("a box with an equation", "en", r"\boxed{x = 18} of 20", "18"),
    ("a box with a fraction", "en", r"\boxed{\frac{1}{2}} of 20", "0.5"),
    ("a box with whole and fraction", "en", r"\boxed{2\frac{1}{2}} of 20", "2.5"),
    ("a box with a negative fraction", "en", r"\boxed{-\dfrac{1}{4}} of 20", "-0.25"),
    ("a box that is cut", "en", r"so \boxed{18", "18"),
    ("a box without number", "en", r"18, \boxed{\text{yes}}", "18"),
    ("a box with spaces", "en", r"\boxed { 18 } of 20", "18"),
    ("a framed box", "en", r"\fbox{18} of 20", "18"),
    ("a box in Chinese", "zh", r"所以答案是 \boxed{18} 元，共9个", "18"),
    ("a box in Bengali digits", "bn", r"\boxed{১৮} এর ৯", "18"),
    ("a braced comma", "en", "57{,}500", "57500"),
    ("a braced decimal comma", "de", "2{,}5", "2.5"),
    ("a thin space of LaTeX", "fr", r"57\,500", "57500"),
    ("a negative space of LaTeX", "en", r"57,\!500", "57500"),
    ("an escaped percent", "en", r"60\%", "60"),
    ("an escaped dollar", "en", r"\$57,500", "57500"),
    ("a product", "en", r"9 \times 2 = 18", "18"),
    ("dollars as mathematics", "de", "$1,234$", "1.234"),
    ("a displayed equation", "en", r"\[ 9 \cdot 2 = 18 \]", "18"),
]

CASES = [
    *PLACES,
    *STATED,
    *SENTENCES,
    *SCRIPTS,
    *MARKS,
    *UNITS,
    *SIGNS,
    *FRACTIONS,
    *LATEX,
]


@pytest.mark.parametrize(
    ("language", "text", "number"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_an_answer_comes_to_one_number(language: str, text: str, number: str | None) -> None:
    """Whatever the script, the marks and the words around it."""
    assert final_answer.extract(text, language) == number


def test_the_table_is_large_and_its_names_are_different() -> None:
    """At least 150 cases, with each of the eleven languages."""
    assert len(CASES) >= 150
    assert len({name for name, *_ in CASES}) == len(CASES)
    assert {language for _, language, *_ in CASES} >= {
        "bn",
        "de",
        "en",
        "es",
        "fr",
        "ja",
        "ru",
        "sw",
        "te",
        "th",
        "zh",
    }


@pytest.mark.parametrize(
    "text",
    ["1" * 50_000, "1," * 50_000, "1 " * 50_000, "1/" * 50_000, "-" * 50_000, "$ " * 50_000,
     "7万" * 20_000, r"\boxed{" * 10_000, r"\frac{" * 10_000, "answer " * 10_000,
     "\u202f" * 50_000, f"a{'_' * 50_000}b"],
    ids=["digits", "commas", "spaces", "strokes", "dashes", "money", "myriads", "boxes",
         "fractions", "answers", "narrow spaces", "underscores"],
)  # fmt: skip
def test_what_a_model_repeats_without_end_is_read_at_once(text: str) -> None:
    """No text makes the search slow or ends it with an error."""
    started = time.monotonic()
    final_answer.extract(text, "fr")

    assert time.monotonic() - started < 5
